# Installation. In a wheel the prefix is the package's folder, and the tool goes to the scripts.
include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/keyseek")
install(
  TARGETS keyseek
  EXPORT keyseekTargets
  COMPONENT library
  FILE_SET HEADERS)
install(EXPORT keyseekTargets NAMESPACE keyseek:: DESTINATION "${package_dir}" COMPONENT library)
configure_package_config_file(cmake/keyseekConfig.cmake.in keyseekConfig.cmake
                              INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file(keyseekConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(
  FILES "${CMAKE_CURRENT_BINARY_DIR}/keyseekConfig.cmake"
        "${CMAKE_CURRENT_BINARY_DIR}/keyseekConfigVersion.cmake" cmake/FindxxHash.cmake
  DESTINATION "${package_dir}"
  COMPONENT library)
install(TARGETS keyseek_hdf5 RUNTIME DESTINATION "${CMAKE_INSTALL_LIBEXECDIR}" COMPONENT library)
if(KEYSEEK_BUILD_CLI)
  if(SKBUILD)
    install(TARGETS keyseek_cli RUNTIME DESTINATION "${SKBUILD_SCRIPTS_DIR}" COMPONENT cli)
  else()
    install(TARGETS keyseek_cli COMPONENT cli)
  endif()
endif()
