//! That a payload runs, and how it ends.

use crate::Test;
use crate::world::World;

pub const TESTS: &[Test] = &[
    Test { name: "true_succeeds", check: true_succeeds },
    Test { name: "python_runs_and_its_output_is_captured", check: python_output },
];

fn true_succeeds(world: &World) {
    let outcome = world.payload("/bin/true", &[]).run();
    assert_eq!((outcome.exit.code, outcome.exit.signal, outcome.exit.out_of_memory), (Some(0), None, false));
}

fn python_output(world: &World) {
    let outcome = world.python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)").run();
    assert_eq!(outcome.exit.code, Some(7));
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
}
