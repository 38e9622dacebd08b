"""The results that the repository keeps: a folder a run, without images of patients, and the tables of them all."""
