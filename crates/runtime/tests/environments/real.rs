//! The real packages, from the index that this host's pip is configured for.

use super::Test;
use super::world::World;

pub const TESTS: &[Test] = &[
    ("old_scikit_learn_gets_the_numpy_of_its_time", old_scikit_learn_gets_the_numpy_of_its_time),
    ("the_real_server_is_installed", the_real_server_is_installed),
];

const PREDICT: &str = r#"
import numpy, sklearn
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
x, y = load_diabetes(return_X_y=True)
predicted = Ridge().fit(x, y).predict(x[:2])
print(sklearn.__version__, numpy.__version__.split(".")[0], len(predicted))
"#;

/// The wheel of scikit-learn 1.2.2 admits any numpy, and fails with numpy 2.
fn old_scikit_learn_gets_the_numpy_of_its_time() {
    let world = World::like_this_one();
    let environment = world.build("dependencies: ['python>=3.10,<3.12', scikit-learn=1.2.2]").unwrap();
    assert_eq!(world.python(&environment, PREDICT), "1.2.2 1 2\n");
}

fn the_real_server_is_installed() {
    let world = World::like_this_one();
    let environment = world.build("dependencies: [{pip: [six==1.16.0]}]").unwrap();
    let code =
        "import six, azureml_inference_server_http as s; print(six.__version__, hasattr(s, '__version__') or 'here')";
    assert!(world.python(&environment, code).starts_with("1.16.0"));
}
