"""`taskstate doctor`: examines a set-up the way an expert would."""
