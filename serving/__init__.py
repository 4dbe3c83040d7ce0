"""What users touch: the predicting consumer, the command line, the demo."""
