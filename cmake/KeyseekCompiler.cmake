# How every target of keyseek is compiled. Nothing here reaches a target that links keyseek.

if(KEYSEEK_SANITIZE)
  # For the whole build: objects with and without a sanitizer must not be mixed.
  add_compile_options(-fsanitize=${KEYSEEK_SANITIZE} -fno-sanitize-recover=all
                      -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${KEYSEEK_SANITIZE})
endif()

# C++20 is asked of nvcc by its own flag: CMake 3.25 does not know that nvcc 13 has it.
function(keyseek_compile_options target)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_compile_options(
    ${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wconversion -Wshadow>
                      $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${KEYSEEK_WERROR}>>:-Werror>
                      $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20;-Xcompiler=-Wall,-Wextra,-Wconversion,-Wshadow>
                      $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${KEYSEEK_WERROR}>>:-Werror=all-warnings>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # GCC 12 takes `"literal" + std::string` for overlapping copies (GCC bug 105329).
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
  endif()
endfunction()
