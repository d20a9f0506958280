# Fails when a per-ISA unit offers the linker a function that it could keep for every CPU: a weak
# symbol (an inline function or template instance) whose name does not say which ISA it is for.
# Run with -DNM=<nm> -DOBJECTS=<objects of the library>.
cmake_minimum_required(VERSION 3.25)

set(units 0)
foreach(object IN LISTS OBJECTS)
  if(NOT object MATCHES "/score/isa_(avx|neon)")
    continue()
  endif()
  execute_process(COMMAND "${NM}" --defined-only -C "${object}" OUTPUT_VARIABLE symbols
                  COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX REPLACE "[][;]" "_" symbols "${symbols}") # they mean something in lists
  string(REGEX MATCHALL "[^\n]* W [^\n]*" weak "${symbols}")
  # Clang's way to std::terminate has no code for an ISA.
  list(FILTER weak EXCLUDE REGEX "xsimd::(fma3|avx|neon)|__clang_call_terminate")
  list(APPEND shared ${weak})
  math(EXPR units "${units} + 1")
endforeach()

if(units EQUAL 0)
  message(FATAL_ERROR "no per-ISA unit among the objects")
endif()
if(shared)
  list(JOIN shared "\n" shared)
  message(FATAL_ERROR "per-ISA units share these with the rest of the program:\n${shared}")
endif()
message(STATUS "${units} units share nothing")
