"""Training is Generalized EM: sample and weigh trajectories, fine-tune on them, and again.

It opens neither models nor indexes (`jobs/train.py` does).
"""
