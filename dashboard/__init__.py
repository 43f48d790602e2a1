"""Six pages that ask gpt_core questions and draw the answers."""
