# SPDX-License-Identifier: Apache-2.0
# A module is a folder: its .cc files (main.cc apart) make one static library, which links only what
# the module table (Modules.cmake) allows.

# postern_module(<folder> [USES <folder>...] [LINKS <external target>...])
function(postern_module folder)
  cmake_parse_arguments(ARG "" "" "USES;LINKS" ${ARGN})
  string(REPLACE "/" "_" name postern_${folder})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.cc)
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  set(uses "")
  foreach(used IN LISTS ARG_USES)
    string(REPLACE "/" "_" used_name postern_${used})
    list(APPEND uses ${used_name})
  endforeach()
  if(sources)
    add_library(${name} STATIC ${sources})
    target_link_libraries(${name} PUBLIC postern_flags ${uses} ${ARG_LINKS})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE postern_flags ${uses} ${ARG_LINKS})
  endif()
  set_property(GLOBAL APPEND PROPERTY POSTERN_MODULES ${folder})
endfunction()

# postern_proto(<folder below proto/> [GRPC]): one library per proto package.
function(postern_proto package)
  string(REPLACE "/" "_" name postern_proto_${package})
  file(GLOB protos CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/proto/${package}/*.proto)
  set(outputs "")
  foreach(proto IN LISTS protos)
    file(RELATIVE_PATH relative ${PROJECT_SOURCE_DIR}/proto ${proto})
    string(REGEX REPLACE "\\.proto$" "" stem ${relative})
    set(made "")
    foreach(ending pb.cc pb.h grpc.pb.cc grpc.pb.h)
      list(APPEND made ${PROJECT_BINARY_DIR}/gen/${stem}.${ending})
    endforeach()
    add_custom_command(
      OUTPUT ${made}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/gen
      COMMAND ${PROTOC_PROGRAM} -I ${PROJECT_SOURCE_DIR}/proto --cpp_out=${PROJECT_BINARY_DIR}/gen
              --grpc_out=${PROJECT_BINARY_DIR}/gen --plugin=protoc-gen-grpc=${GRPC_CPP_PLUGIN} ${proto}
      DEPENDS ${protos} COMMENT "protoc ${relative}" VERBATIM)
    list(APPEND outputs ${made})
  endforeach()
  add_library(${name} STATIC ${outputs})
  target_link_libraries(${name} PRIVATE postern_gen_flags)
  target_include_directories(${name} SYSTEM PUBLIC ${PROJECT_BINARY_DIR}/gen)
  target_link_libraries(${name} PUBLIC postern_grpc postern_protobuf)
endfunction()

# postern_program(<name> <folder> USES <folder>...): folder/main.cc.
function(postern_program name folder)
  cmake_parse_arguments(ARG "" "" "USES;LINKS" ${ARGN})
  if(NOT EXISTS ${PROJECT_SOURCE_DIR}/${folder}/main.cc)
    return()
  endif()
  add_executable(${name} ${PROJECT_SOURCE_DIR}/${folder}/main.cc)
  foreach(used IN LISTS ARG_USES)
    string(REPLACE "/" "_" used_name postern_${used})
    target_link_libraries(${name} PRIVATE ${used_name})
  endforeach()
  target_link_libraries(${name} PRIVATE postern_flags ${ARG_LINKS})
  if(POSTERN_USES_ARCHIVES)
    set_property(TARGET ${name} PROPERTY POSTERN_ARCHIVES ON)
    target_link_libraries(${name} PRIVATE postern_archives)
  endif()
endfunction()
