"""Learning and decisions: pure models without Kafka, Redis, clock or files.

Every model follows River's verbs (``learn_one``, ``predict_one``, ``rank``) and works on its own in plain River code;
the hot loops are Numba kernels, each held equal to a plain Python reference by a property test.
"""
