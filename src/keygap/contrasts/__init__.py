"""Two selections of labelled tokens: the ladder, the user's own, and confounds."""
