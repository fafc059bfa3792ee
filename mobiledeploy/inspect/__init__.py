"""Read what an artifact contains without running it on images, whatever exported it."""
