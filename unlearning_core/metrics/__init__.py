"""What an edit cost and what it forgot: integrity, accuracies, picture quality."""
