"""Does keygap read this model correctly?"""
