"""An engine turns prompts of token ids into sampled token ids with their log-probabilities."""
