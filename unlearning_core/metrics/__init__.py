"""What an edit cost and what it forgot: integrity, accuracies, picture quality, and how they are reported."""
