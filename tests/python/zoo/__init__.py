"""Every causal language model class of the installed transformers, small and random."""
