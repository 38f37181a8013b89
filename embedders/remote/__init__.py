"""What embedders over the network share: sending, pacing, giving up, and checking what comes back."""
