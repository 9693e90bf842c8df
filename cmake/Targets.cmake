# SPDX-License-Identifier: Apache-2.0
# Targets for people, beside the ones that build:
#   cmake --build build/release --target check    lint, unit and integration tests of this build
#   cmake --build build/release --target docs     rewrites the generated pages in docs/
#   cmake --build build/release --target format   clang-format over every C++ file of ours
#   cmake --build build/release --target tidy     clang-tidy (.clang-tidy) over every C++ file of ours
#   cmake --build build/release --target bench    micro-benchmarks (tests/bench/micro)

find_package(Python3 COMPONENTS Interpreter QUIET)
set(postern_code_folders common proxy control cli tests)

set(cpp_globs "")
foreach(folder IN LISTS postern_code_folders)
  list(APPEND cpp_globs ${PROJECT_SOURCE_DIR}/${folder}/*.cc ${PROJECT_SOURCE_DIR}/${folder}/*.h)
endforeach()
file(GLOB_RECURSE cpp_files CONFIGURE_DEPENDS ${cpp_globs})

find_program(CLANG_FORMAT clang-format)
if(CLANG_FORMAT)
  add_custom_target(format COMMAND ${CLANG_FORMAT} -i ${cpp_files}
    COMMENT "clang-format: rewrite every C++ file" VERBATIM)
else()
  add_custom_target(format COMMAND ${CMAKE_COMMAND} -E echo
    "clang-format is not installed: deploy/packages.sh install dev" COMMAND ${CMAKE_COMMAND} -E false)
endif()

find_program(RUN_CLANG_TIDY NAMES run-clang-tidy run-clang-tidy-19 run-clang-tidy-14)
if(RUN_CLANG_TIDY)
  add_custom_target(tidy
    COMMAND ${RUN_CLANG_TIDY} -quiet -p ${PROJECT_BINARY_DIR}
            "${PROJECT_SOURCE_DIR}/(common|proxy|control|cli)/.*\\.cc$"
    COMMENT "clang-tidy: every C++ file, slowly" VERBATIM USES_TERMINAL)
else()
  add_custom_target(tidy COMMAND ${CMAKE_COMMAND} -E echo
    "clang-tidy is not installed: deploy/packages.sh install dev" COMMAND ${CMAKE_COMMAND} -E false)
endif()

if(Python3_FOUND)
  add_custom_target(check
    COMMAND ${CMAKE_COMMAND} --build ${PROJECT_BINARY_DIR}
    COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tests/testing/run_tests.py run
            --build ${PROJECT_BINARY_DIR} --labels lint,unit,integration
    COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tests/testing/run_tests.py total
            ${PROJECT_BINARY_DIR}/test-results/summary.json
    COMMENT "build, then lint, unit and integration tests" VERBATIM USES_TERMINAL)

  # docs/OPERATIONS.md takes its table from a header; CONFIG.md and METRICS.md come from a program.
  add_custom_target(docs
    COMMAND ${CMAKE_COMMAND} -E env POSTERN_BUILD_DIR=${PROJECT_BINARY_DIR}
            POSTERN_SOURCE_DIR=${PROJECT_SOURCE_DIR}
            ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tests/lint/docs_in_sync.py --write
    COMMENT "write the generated pages of docs/" VERBATIM)
  if(TARGET postern-docs)
    add_dependencies(docs postern-docs)
  endif()
endif()
