"""The experiment "causes": is it the distance between keys that biases answers, or attention?"""
