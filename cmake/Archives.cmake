# SPDX-License-Identifier: Apache-2.0
# gRPC with what it is made of (protobuf, abseil, upb, RE2) goes into the programs as archives: a third
# of the time of a start was the loader's, which looked up its symbols in sixty libraries, and each page
# of theirs that it touched counted (docs/adr/0009-grpc-as-archives.md). Tests and sanitizer builds
# link the shared libraries. Modules link the targets postern_grpc, postern_absl and so on; those are
# empty for a target with the property POSTERN_ARCHIVES, which links postern_archives itself.

include(CheckCXXSourceCompiles)
include(CheckLinkerFlag)
option(POSTERN_SHARED_GRPC "Link gRPC, protobuf and abseil as shared libraries into the programs" OFF)

# The names of all of it, in the order of a linker, from pkg-config.
set(postern_archived grpc++ protobuf re2 absl_status absl_statusor absl_strings absl_time
  absl_flat_hash_map absl_flat_hash_set yaml-cpp)
execute_process(COMMAND ${PKG_CONFIG_EXECUTABLE} --static --libs-only-l ${postern_archived}
  OUTPUT_VARIABLE words OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed)
separate_arguments(words)
set(archives "")
set(shared "")
if(NOT failed AND NOT POSTERN_SHARED_GRPC AND NOT POSTERN_SANITIZE)
  list(REMOVE_DUPLICATES words)
  foreach(word IN LISTS words)
    if(word MATCHES "^-l(grpc|gpr|protobuf|absl_|upb|re2|address_sorting|utf8_range|yaml-cpp)")
      string(SUBSTRING ${word} 2 -1 name)
      find_library(POSTERN_ARCHIVE_${name} lib${name}.a)
      mark_as_advanced(POSTERN_ARCHIVE_${name})
      if(NOT POSTERN_ARCHIVE_${name})
        message(STATUS "no lib${name}.a: gRPC is linked as shared libraries")
        set(archives "")
        break()
      endif()
      list(APPEND archives ${POSTERN_ARCHIVE_${name}})
    elseif(word MATCHES "^-l")
      list(APPEND shared ${word})  # OpenSSL, c-ares, zlib: theirs to patch
    endif()
  endforeach()
endif()

if(archives)
  set(CMAKE_REQUIRED_LIBRARIES -Wl,--start-group ${archives} -Wl,--end-group ${shared} Threads::Threads)
  check_cxx_source_compiles("
    #include <grpcpp/create_channel.h>
    int main() { return grpc::CreateChannel({}, grpc::InsecureChannelCredentials()) == nullptr; }"
    POSTERN_ARCHIVES_FIT)
  unset(CMAKE_REQUIRED_LIBRARIES)
endif()

add_library(postern_archives INTERFACE)
if(archives AND POSTERN_ARCHIVES_FIT)
  set(POSTERN_USES_ARCHIVES ON)
  target_link_libraries(postern_archives INTERFACE
    -Wl,--start-group ${archives} -Wl,--end-group ${shared})
  target_link_options(postern_archives INTERFACE -Wl,--gc-sections)
  # A fifteenth of their size; a linker that does not know it says so and goes on.
  check_linker_flag(CXX -Wl,-z,pack-relative-relocs POSTERN_PACKS_RELOCATIONS)
  if(POSTERN_PACKS_RELOCATIONS)
    target_link_options(postern_archives INTERFACE -Wl,-z,pack-relative-relocs)
  endif()
endif()

# postern_shared_unless_archived(<name> <target>...)
function(postern_shared_unless_archived name)
  add_library(${name} INTERFACE)
  foreach(target IN LISTS ARGN)
    target_link_libraries(${name} INTERFACE
      $<$<NOT:$<BOOL:$<TARGET_PROPERTY:POSTERN_ARCHIVES>>>:${target}>)
  endforeach()
endfunction()

postern_shared_unless_archived(postern_grpc PkgConfig::GRPCPP)
postern_shared_unless_archived(postern_protobuf protobuf::libprotobuf)
postern_shared_unless_archived(postern_yaml yaml-cpp)
postern_shared_unless_archived(postern_absl absl::status absl::statusor absl::strings absl::time
  absl::flat_hash_map absl::flat_hash_set)
