"""The record of trainings in MLflow, and which model is champion."""
