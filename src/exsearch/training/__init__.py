"""Training is Generalized EM: sample and weigh trajectories, fine-tune on them, and again."""
