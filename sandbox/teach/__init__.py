"""What teaches: facts about the host, explanations, comparisons."""
