"""Lists of statements whose conditions stand in their SQL, and the two ways to send one."""
