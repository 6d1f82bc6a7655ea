"""Diagnosis: the doctor and the check of the public URL."""
