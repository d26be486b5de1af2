//! Seeded simulation of Leno's pure parts
