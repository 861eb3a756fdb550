/*
 * Compares the declarations of src/pg/raw.rs that the generated bindings leave out with the server's headers.
 * Nothing is built from this file: scripts/headers.sh only lets the compiler look at it.
 */
#include "postgres.h"

#include <unistd.h>

#include "commands/sequence.h"
#include "utils/bytea.h"
#include "utils/multirangetypes.h"
#include "utils/rangetypes.h"
#include "utils/timeout.h"

#define DECLARED(function, type) \
	_Static_assert(__builtin_types_compatible_p(__typeof__(&(function)), type), \
				   #function " is declared otherwise in the server's headers")

/* Rust's Oid, bool, i64 and i32 are these. */
_Static_assert(sizeof(Oid) == 4 && sizeof(bool) == 1 && sizeof(int64) == 8 && sizeof(int32) == 4,
			   "sizes of the types of arguments");

DECLARED(nextval_internal, int64 (*) (Oid, bool));
DECLARED(multirange_deserialize, void (*) (TypeCacheEntry *, const MultirangeType *, int32 *, RangeType ***));
/* An enumeration is passed as an int. */
_Static_assert(sizeof(TimeoutId) == sizeof(int) && 1000 > MAX_TIMEOUTS, "timers are numbered otherwise");
DECLARED(RegisterTimeout, TimeoutId (*) (TimeoutId, void (*) (void)));
#if PG_VERSION_NUM >= 150000
DECLARED(enable_timeout_every, void (*) (TimeoutId, TimestampTz, int));
#else
DECLARED(enable_timeout_after, void (*) (TimeoutId, int));
#endif
DECLARED(disable_timeout, void (*) (TimeoutId, bool));
DECLARED(geteuid, uint32 (*) (void));
_Static_assert(__builtin_types_compatible_p(__typeof__(bytea_output), int), "bytea_output is declared otherwise");
