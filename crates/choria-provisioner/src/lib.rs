//! The Choria provisioner: finds unprovisioned servers and takes them through enrolment.
