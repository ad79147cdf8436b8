"""A trained network as a policy: shown what is seen, it says where the hands should go."""
