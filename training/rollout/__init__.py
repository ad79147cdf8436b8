"""A trained policy in closed loop: what is seen goes in, a chunk of targets comes out, its first part is carried out, and again."""
