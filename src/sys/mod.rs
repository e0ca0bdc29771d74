//! System calls that `nix` and `rustix` lack. The only home of `unsafe`.
