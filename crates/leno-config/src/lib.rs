//! What operators write, checked and explained
