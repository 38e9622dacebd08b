"""The results in docs/results: a folder for each run, without images of patients, and the tables of all."""
