"""What the statistics share: input checks, kernels, resampling, classifiers, components."""
