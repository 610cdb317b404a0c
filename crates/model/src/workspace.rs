//! What is wanted of a workspace.

/// The resource type of a workspace.
pub const WORKSPACE_TYPE: &str = "Microsoft.MachineLearningServices/workspaces";
