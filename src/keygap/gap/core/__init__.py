"""What the statistics share: inputs, kernels, resampling, critics, components."""
