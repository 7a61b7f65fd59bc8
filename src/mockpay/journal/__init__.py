"""What clients asked, kept for the timeline. Knows nothing of what it was about."""
