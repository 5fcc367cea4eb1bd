"""Pure code held against naive models and every input that hypothesis finds."""
