"""A look at the system: the doctor, why loops fail, and the system as people reach it."""
