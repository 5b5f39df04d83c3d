//! Choria configuration: file grammar, the one key table, typed settings, build settings.
