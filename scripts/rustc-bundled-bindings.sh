#!/bin/sh
# rustc-bundled-bindings.sh RUSTC ARGUMENT…: as RUSTC_WRAPPER it lets pgrx-pg-sys be compiled with the bindings that the crate
# brings along for docs.rs, so that no PostgreSQL is needed. RUSTFLAGS would say the same to all crates, of which some then
# ask for features of a nightly compiler.
case " $* " in
*" --crate-name pgrx_pg_sys "*) exec "$@" --cfg docsrs ;;
*) exec "$@" ;;
esac
