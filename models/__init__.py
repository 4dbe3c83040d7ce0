"""What learns or judges: learners, scoring, blocks of evidence, versions."""
