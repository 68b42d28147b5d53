"""The embedded model: a small real vision-language model for the demo and the tests.

A text-pretrained language model and an ImageNet vision model come from ordinary Python packages, or
the former from the Hub, and stay frozen; the connectors between them ship with keygap. No account
is needed, and with the packages no Hub either.
"""
