"""Data files of other people: tables, images, option lists, markers. All of it is hostile."""
