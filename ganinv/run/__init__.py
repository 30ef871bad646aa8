"""Floor 6: a run's folder, its status, its processes and their logs; knows no method."""
