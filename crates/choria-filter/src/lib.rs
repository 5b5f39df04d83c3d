//! Filters on the node: facts, classes, agents, identities and compound expressions.
