# Pintle. `make help` lists the targets.
#
# B=dir builds into another folder; MODE=release|debug|asan|tsan chooses the flags.

MODE ?= release
B ?= build$(if $(filter-out release,$(MODE)),/$(MODE))
CC := gcc
JOBS ?= $(shell nproc)
MAKEFLAGS += --no-builtin-rules --no-print-directory $(if $(filter 0,$(MAKELEVEL)),-j$(JOBS))

.DEFAULT_GOAL := all
.SECONDARY:

# ---- modules: one folder each, and what a folder may include (checked by `make tidy`) -------------------
MODULES := base schemas schemas/etcd schemas/kube store raft watch api/core api/http api/etcd api/kube api \
           clients/lib clients/ctl clients/scheduler clients/controllers clients/agent clients/up clients bench

GENERATED := $(B)/gen
PROTOS := $(wildcard schemas/etcd/*.proto) $(wildcard schemas/kube/*.proto)
PROTO_C := $(patsubst %.proto,$(GENERATED)/%.pb-c.c,$(PROTOS))
PROTO_O := $(patsubst $(GENERATED)/%.c,$(B)/obj/gen/%.o,$(PROTO_C))
KINDS := $(wildcard schemas/kube/*.kinds)

# ---- flags ----------------------------------------------------------------------------------------------
WARN := -Wall -Wextra -Wconversion -Wno-sign-conversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
        -Wformat=2 -Wno-missing-field-initializers -Werror
CFLAGS_release := -O2 -g
CFLAGS_debug := -O0 -g3
CFLAGS_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
CFLAGS_tsan := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
CFLAGS := -std=gnu17 -D_GNU_SOURCE -pthread -fno-strict-aliasing $(CFLAGS_$(MODE)) $(EXTRA_CFLAGS)
CPPFLAGS := -I. -I$(GENERATED)
comma := ,
LDFLAGS := -pthread $(if $(filter asan,$(MODE)),-fsanitize=address$(comma)undefined) $(if $(filter tsan,$(MODE)),-fsanitize=thread)
LIBS := -lraft -luv -llz4 -lmsgpackc -lnghttp2 -lssl -lcrypto -lprotobuf-c -lxxhash -lyaml -lhttp_parser -lm
JEMALLOC := $(if $(filter release,$(MODE)),$(shell test -e /usr/include/jemalloc/jemalloc.h && echo -ljemalloc))

# ---- sources --------------------------------------------------------------------------------------------
SRC := $(foreach m,$(MODULES),$(wildcard $(m)/*.c))
OBJ := $(patsubst %.c,$(B)/obj/%.o,$(SRC)) $(PROTO_O)
MAIN_O := $(B)/obj/clients/main.o
LIB := $(B)/libpintle.a
TEST_SRC := $(wildcard tests/unit/*/test_*.c tests/sim/test_*.c)
TEST_BIN := $(patsubst tests/%.c,$(B)/tests/%,$(TEST_SRC))
TEST_LIB_SRC ?= $(filter-out tests/sim/test_%.c,$(wildcard tests/lib/*.c tests/sim/*.c))
TEST_LIB_O := $(patsubst %.c,$(B)/obj/%.o,$(TEST_LIB_SRC))
TEST_LIB := $(B)/libtest.a

all: $(B)/pintle

help:
	@echo "make              build build/pintle"
	@echo "make run          install what is missing, build, start a three-node control plane (Ctrl-C stops it)"
	@echo "make test         everything that judges it; needs root or sudo to install test peers the first time"
	@echo "make check        unit tests only"
	@echo "make asan, tsan   the unit tests, fuzz corpora, simulation, integration and compatibility tests under sanitizers"
	@echo "make sim          the seeded simulation: SEEDS=n [SEED=first] [TRACE=1] [SHRINK=1] [STEPS=n]"
	@echo "make sim-modes    the same seeds in a release and a sanitized build must give the same: [SEED=first] [SEEDS=n]"
	@echo "make soak         the same until told: HOURS=n"
	@echo "make chaos        real members under real faults: MINUTES=n [MEMBERS=3|5] [SEED=n] [FAULTS=list] [ONLY=store|kube]; as root"
	@echo "make chaos-mutants  etcd's known bugs put in, which their scenarios must find: [MUTANT=issue]"
	@echo "make mutants      deliberate bugs that the tests must find: [MUTANT=name] [SEEDS=n] [SEED=first,first] [QUICK=1] [CHECK=1]"
	@echo "make fuzz         libFuzzer targets, SECONDS=n each"
	@echo "make faults       every system call and allocation made to fail once; every file damaged in many places"
	@echo "make overload     many times the clients that saturate it, and clients that do harm; prints figures"
	@echo "make bench        Debian's etcd and Pintle side by side: ROWS=put,range,watch [ETCD=path]"
	@echo "make tidy         include rules, house rules"
	@echo "make fmt          clang-format"
	@echo "make install      to DESTDIR/PREFIX (default /usr/local)"
	@echo "make clean"

$(B)/pintle: $(MAIN_O) $(LIB)
	@echo "  LINK  $@"; $(CC) $(LDFLAGS) -o $@ $(MAIN_O) $(LIB) $(LIBS) $(JEMALLOC)

$(LIB): $(filter-out $(MAIN_O),$(OBJ))
	@rm -f $@; ar rcs $@ $^

HEADERS := raft.h uv.h lz4.h msgpack.h nghttp2/nghttp2.h openssl/ssl.h protobuf-c/protobuf-c.h xxhash.h yaml.h http_parser.h
toolchain:
	@command -v $(CC) >/dev/null && command -v protoc-c >/dev/null && printf '#include <%s>\n' $(HEADERS) | $(CC) -E - >/dev/null 2>&1 || \
	{ echo "The compiler or a library is missing; as root or with sudo, tests/install build brings what is needed." >&2; exit 1; }

$(B)/obj/%.o: %.c | toolchain $(PROTO_C)
	@mkdir -p $(@D); echo "  CC    $<"; $(CC) $(CPPFLAGS) $(CFLAGS) $(WARN) -MMD -MP -c -o $@ $<

$(B)/obj/gen/%.o: $(GENERATED)/%.c
	@mkdir -p $(@D); echo "  CC    $<"; $(CC) $(CPPFLAGS) $(CFLAGS) -w -MMD -MP -c -o $@ $<

$(GENERATED)/%.pb-c.c: %.proto | toolchain
	@mkdir -p $(@D); protoc-c --c_out=$(GENERATED) $<

# Kind data is embedded as text; see schemas/kube/kinds.h.
$(B)/obj/schemas/kube/kinds_data.o: $(KINDS)

# ---- tests ----------------------------------------------------------------------------------------------
$(TEST_LIB): $(TEST_LIB_O)
	@rm -f $@; ar rcs $@ $^

$(B)/tests/%: tests/%.c $(TEST_LIB) $(LIB)
	@mkdir -p $(@D) $(B)/obj/$(<D); echo "  TEST  $@"; \
	$(CC) $(CPPFLAGS) $(CFLAGS) $(WARN) -MMD -MP -MF $(B)/obj/$<.d -MT $@ -o $@ $< $(TEST_LIB) $(LIB) $(LDFLAGS) $(LIBS) -lcmocka -ljson-c

-include $(OBJ:.o=.d) $(wildcard $(B)/obj/tests/*/*.d $(B)/obj/tests/*/*/*.d)

FUZZ_BIN := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/fuzz/fuzz_*.c))

$(B)/tests/fuzz/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/replay.c $(LIB)
	@mkdir -p $(@D); echo "  TEST  $@"; \
	$(CC) $(CPPFLAGS) $(CFLAGS) $(WARN) -o $@ $< tests/fuzz/replay.c $(LIB) $(LDFLAGS) $(LIBS)

COMPAT_BIN := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/compat/*.c))

# Makes system calls fail, for tests/integration/test_iofail.py.
IOFAIL := $(B)/tests/integration/iofail.so
$(IOFAIL): tests/integration/iofail.c
	@mkdir -p $(@D); echo "  TEST  $@"; $(CC) -std=gnu17 -D_GNU_SOURCE -O2 -g $(WARN) -fPIC -shared -o $@ $< -ldl

# ---- chaos: real processes, real kernel (docs/chaos.md) --------------------------------------------------------
CHAOS_CC = mkdir -p $(@D) && echo "  TEST  $@" && $(CC) -Itests/chaos $(CPPFLAGS) $(CFLAGS) $(WARN)
CHAOS_LOAD := $(addprefix tests/chaos/,load.c load_kv.c load_ops.c load_watch.c load_final.c record.c)
CHAOS_JUDGE := $(wildcard tests/chaos/judge*.c) tests/sim/linear.c
CHAOS_BIN := $(addprefix $(B)/tests/chaos/,load judge switch shim.so)

$(B)/tests/chaos/load: $(CHAOS_LOAD) tests/chaos/load_int.h $(LIB)
	@$(CHAOS_CC) -o $@ $(CHAOS_LOAD) $(LIB) $(LDFLAGS) $(LIBS)

$(B)/tests/chaos/judge: $(CHAOS_JUDGE) $(wildcard tests/chaos/judge*.h) $(LIB)
	@$(CHAOS_CC) -o $@ $(CHAOS_JUDGE) $(LIB) $(LDFLAGS) $(LIBS)

$(B)/tests/chaos/switch: tests/chaos/switch.c
	@$(CHAOS_CC) -o $@ $< $(LDFLAGS)

$(B)/tests/chaos/shim.so: tests/chaos/shim.c
	@$(CHAOS_CC) -fPIC -shared -o $@ $< -ldl

MINUTES ?= 2
chaos: all $(CHAOS_BIN)
	@B=$(B) tests/chaos/run --minutes $(MINUTES) $(if $(MEMBERS),--members $(MEMBERS)) $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(ONLY),--only $(ONLY))

tests: $(TEST_BIN) $(FUZZ_BIN) $(COMPAT_BIN) $(IOFAIL) $(CHAOS_BIN)

check: all tests
	@B=$(B) tests/run unit

test: install-test
	@$(MAKE) all tests
	@B=$(B) tests/run all

# Address, undefined-behaviour and thread sanitizers over units, fuzz corpora, simulation, integration and compatibility.
asan tsan:
	@$(MAKE) MODE=$@ all tests
	@B=build/$@ tests/run sanitize

# SEED=n repeats one (with SEEDS=m: m from there on), TRACE=1 tells its story, SHRINK=1 drops the faults it does not
# need (ONLY='faults:3,7' is what is left), STEPS=n crashes a small world of it at each disk operation (STEP=k: at the kth
# place, AFTER=ms: from there on).
SEEDS ?= 300
SIM_ARGS = $(if $(SEED),--seed $(SEED) $(if $(filter command line,$(origin SEEDS)),--seeds $(SEEDS)),--seeds $(SEEDS)) \
           $(if $(TRACE),--trace $(TRACE)) $(if $(SHRINK),--shrink) $(if $(ONLY),--only '$(ONLY)') \
           $(if $(STEPS),--steps $(STEPS)) $(if $(STEP),--step $(STEP)) $(if $(AFTER),--after $(AFTER)) $(if $(UNMASK),--unmask $(UNMASK))
sim: $(B)/tests/sim/test_sim
	@$< $(SIM_ARGS)

# The same seeds in a release and a sanitized build: the digests must be equal.
sim-modes: $(B)/tests/sim/test_sim
	@$(MAKE) MODE=asan B=build/asan build/asan/tests/sim/test_sim
	@tests/sim/modes $< build/asan/tests/sim/test_sim $(or $(SEED),1) $(or $(filter-out 300,$(SEEDS)),5)

HOURS ?= 1
soak: $(B)/tests/sim/test_sim
	@$< --hours $(HOURS) $(if $(SEED),--seed $(SEED))

# Deliberate bugs, one at a time, that the tests must find: docs/mutants.md.
mutants: export MUTANT_B := $(B)
mutants: export MUTANT_CC := $(CC)
mutants: export MUTANT_CFLAGS := $(CPPFLAGS) $(CFLAGS)
mutants: export MUTANT_LIB := $(TEST_LIB) $(LIB)
mutants: export MUTANT_LIBS := $(LDFLAGS) $(LIBS) -lcmocka -ljson-c
mutants: $(TEST_LIB) $(LIB)
	@tests/mutants/run --jobs $(JOBS) $(if $(CHECK),--check) $(if $(QUICK),--quick) $(if $(filter command line,$(origin SEEDS)),--seeds $(SEEDS)) $(if $(SEED),--first $(SEED)) $(MUTANT)

# etcd's bugs put into the server; the scenarios must find them.
chaos-mutants: export MUTANT_CC := $(CC)
chaos-mutants: export MUTANT_CFLAGS := $(CPPFLAGS) $(CFLAGS)
chaos-mutants: export MUTANT_MAIN := $(MAIN_O)
chaos-mutants: export MUTANT_LIB := $(LIB)
chaos-mutants: export MUTANT_LIBS := $(LDFLAGS) $(LIBS)
chaos-mutants: all $(CHAOS_BIN)
	@B=$(B) tests/chaos/mutants $(MUTANT)

# Three minutes of overload, a million watchers, 10,000 connections; prints what it measures.
overload: all
	@PINTLE_LONG=1 PINTLE=$(abspath $(B)/pintle) tests/integration/test_overload.py

# Every single call and allocation, and many places of every file, not a sample.
faults: all tests
	@PINTLE_LONG=1 B=$(B) PINTLE=$(abspath $(B)/pintle) tests/integration/test_iofail.py
	@PINTLE_LONG=1 $(B)/tests/unit/core/test_memory
	@PINTLE_LONG=1 $(B)/tests/unit/raft/test_memory
	@PINTLE_LONG=1 B=$(B) tests/fuzz/replay
	@PINTLE_LONG=1 PINTLE=$(abspath $(B)/pintle) tests/integration/test_corruption.py
	@PINTLE_LONG=1 PINTLE=$(abspath $(B)/pintle) tests/integration/test_heal.py

SECONDS ?= 60
fuzz:
	+@tests/fuzz/run $(SECONDS)

ROWS ?= put,range,watch
bench: install-bench
	@$(MAKE) all
	@PATH="$$PATH:$(CURDIR)/build/peers/usr/bin" bench/run $(ROWS)

tidy:
	@tests/tidy

fmt:
	@clang-format -i $(filter-out %.pb-c.c,$(SRC)) $(wildcard */*.h */*/*.h tests/*/*.c tests/*/*/*.c)

# ---- running and installing ------------------------------------------------------------------------------
install-run install-test install-bench: install-%:
	@tests/install $*

run: install-run
	@$(MAKE) all
	@$(B)/pintle up $(UPFLAGS)

PREFIX ?= /usr/local
install: all
	install -D -m 755 $(B)/pintle $(DESTDIR)$(PREFIX)/bin/pintle

clean:
	rm -rf build

.PHONY: all help overload faults toolchain tests check test asan tsan sim sim-modes soak chaos chaos-mutants mutants fuzz bench tidy fmt install-run install-test install-bench run install clean
