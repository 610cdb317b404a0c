"""Scoring script: init() once in each worker, run() for each request."""

import json
import logging
import os

import joblib


def init():
    global model
    path = os.path.join(os.environ["AZUREML_MODEL_DIR"], "model", "diabetes.joblib")
    model = joblib.load(path)
    logging.info("model loaded from %s", path)


def run(raw_data):
    rows = json.loads(raw_data)["data"]
    logging.info("%d rows to score", len(rows))
    return model.predict(rows).tolist()
