"""The experiment "causes": is it the distance of keys that biases answers, or attention?"""
