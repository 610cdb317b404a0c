"""Train on scikit-learn's diabetes data: 442 patients, ten measurements each, one target.

Usage: python train.py OUTPUT_DIRECTORY
Writes model/diabetes.joblib and sample-request.json (two patients that the model has not seen).
"""

import json
import pathlib
import sys

import joblib
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

output = pathlib.Path(sys.argv[1])
rows, targets = load_diabetes(return_X_y=True)
train_rows, test_rows, train_targets, test_targets = train_test_split(
    rows, targets, test_size=0.2, random_state=7
)
model = Ridge(alpha=0.1).fit(train_rows, train_targets)

(output / "model").mkdir(parents=True, exist_ok=True)
joblib.dump(model, output / "model" / "diabetes.joblib")
request = {"data": test_rows[:2].tolist()}
(output / "sample-request.json").write_text(json.dumps(request, indent=2) + "\n")

print(
    json.dumps(
        {
            "patients": len(rows),
            "r2": round(r2_score(test_targets, model.predict(test_rows)), 3),
            "expected": model.predict(test_rows[:2]).tolist(),
            "measured": test_targets[:2].tolist(),
        }
    )
)
