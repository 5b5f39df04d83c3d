//! The Choria server: the agent on every node, provisioning mode, built-in agents, registration, lifecycle.
