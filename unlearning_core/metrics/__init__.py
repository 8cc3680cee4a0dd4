"""What an edit cost: LPIPS, its statistics over prompts, and the picture sheet."""
